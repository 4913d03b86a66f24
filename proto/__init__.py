"""The wire contract: generated messages and stubs, the rules that protobuf cannot express, and what both ends share."""
