"""Public releases of optic disc and cup as data sets."""
