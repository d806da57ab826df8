fn main() -> std::process::ExitCode {
    layerctl::run(std::env::args_os())
}
