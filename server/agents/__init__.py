"""Agents on edge devices: enrolment, certificates, streams and the transport over them."""
