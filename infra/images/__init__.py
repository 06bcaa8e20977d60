"""`make image-test`: builds every image, and lets the processes of a whole Trivet do their work inside of them.

builders.py   what builds an image and runs a command in it: docker, podman, buildah, or a program that is named
agent.py      runs inside a container: starts its services, does what the trial says, tells what came of it
trial.py      Valkey, S3 and a website on this machine, and what has to hold inside the images
"""
