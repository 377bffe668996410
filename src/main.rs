//! The `landbridge` binary: everything is in the library.

/// Objects are trees of many small pieces, which this allocator gives out faster and takes back sooner.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    landbridge::cli::main()
}
