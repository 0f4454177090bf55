"""How far a graph's predictions hold: measured on the model, by interventions."""
