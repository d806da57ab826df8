//! README's console blocks are true.

use crate::lab::needs;

#[apply(test)]
fn console_blocks_of_the_readme() {
    needs::fixtures();
    trycmd::TestCases::new().case("README.md");
}
