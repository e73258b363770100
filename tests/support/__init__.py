"""What tests share: virtual time, fakes, an emulator without sockets."""
