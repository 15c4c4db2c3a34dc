"""Ray Serve as a target: one application for each revision of a model, and a gateway with the HTTP routes.

`export/ray_serve.py` has the applications as values. Here are the steps of an apply (`cluster`, `apply`), the two kinds
of replicas (`replica`, `gateway`), and the modules that import Ray (`builders`, `handles`, `router`).
"""
