"""Devices over the network: the frames of llama.cpp's RPC, a client that asks for devices, and the server.

llama.cpp's own client ends its process when a host does not answer, so a host is asked here first. Its own server
holds one client at a time, and one that sends a malformed message ends it, so `lend` has a process for each client.
"""
