"""Transcoder sets: layouts on disk, activations, encoder and decoder rows. Independent of models and graphs."""
