"""Networks of the clinic: hidden places with known names, in two halves."""
