"""Transcoder sets: layouts on disk, activations, encoder and decoder rows. Knows no models and no graphs."""
