"""What is run and what came out: a study's configuration, tables of its records, claims, figures."""
