"""The deployment: a coordinator and participants over HTTPS, running the very App that was simulated."""
