//! The server as its users meet it: the real program, real TLS, real gRPC.

mod issuance;
mod process;
mod running;
