"""The wire contract: generated messages and stubs, and the rules that protobuf cannot express."""
