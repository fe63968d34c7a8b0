"""Pure derivation of everything a run needs to know from what was asked."""
