"""One computing thread for JAX, its cache of compiled programs and its backend for Keras, before anything imports them."""

import os
import sys
from pathlib import Path

from hypothesis import settings

from koinon.runtimes import environment

os.environ.update(environment.settings(os.environ))  # as in koinon's own processes: they share the programs
os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).parent))

# The same examples in every run, so that a failure is a failure for everybody;
# `HYPOTHESIS_PROFILE=search` looks further and elsewhere.
settings.register_profile("repeatable", deadline=None, max_examples=40, derandomize=True, database=None)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
