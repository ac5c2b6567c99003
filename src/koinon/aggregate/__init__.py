"""How the updates of a cohort become one aggregate."""
