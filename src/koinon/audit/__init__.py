"""An attack on the user's own job: does the noise hide what it claims to hide, and does the model tell whom it saw?"""
