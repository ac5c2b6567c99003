"""One computing thread for JAX and its backend for Keras, before anything imports them."""

import os
import sys
from pathlib import Path

os.environ["NPROC"] = "1"
os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).parent))
