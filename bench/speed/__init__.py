"""What the gateway costs: CPU per request beside a bare forwarder, memory in flight, start-up time."""
