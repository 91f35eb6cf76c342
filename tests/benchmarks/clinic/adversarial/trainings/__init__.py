"""The trainings, by theme; every file in here enters its kinds."""
