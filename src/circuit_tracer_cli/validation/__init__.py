"""How well a graph's predictions hold up: measured on the model, by interventions."""
