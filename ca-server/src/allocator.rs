//! The allocator of the program. That of the system keeps what a crowd has left behind, this one gives it back. How it does
//! that is in `.cargo/config.toml`.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
