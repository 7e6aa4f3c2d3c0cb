//! The program `seed`: arguments in, exit code out.
fn main() -> std::process::ExitCode {
    rumormill::cli::seed_main()
}
