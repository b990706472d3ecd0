"""Equal terms by something else than tokens: training FLOPs, parameters, or the state read for one token."""
