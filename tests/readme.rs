//! README's console blocks are true.

#[test]
fn console_blocks_of_the_readme() {
    trycmd::TestCases::new().case("README.md");
}
