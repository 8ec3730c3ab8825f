//! How peers talk: a sans-IO gossip protocol. Bytes become messages in `wire`; nothing here opens a socket, reads a clock
//! or draws randomness of its own.
pub mod addr;
pub mod message;
pub mod wire;
