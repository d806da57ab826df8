//! Tables read back: docker's and our own look alike.

use std::collections::BTreeMap;

/// The rows of a table by its column heads. Columns are two blanks apart at least, and begin
/// where their heads begin.
pub fn read(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.lines();
    let Some(head) = lines.next() else {
        return Vec::new();
    };
    let head: Vec<char> = head.chars().collect();
    let starts: Vec<usize> = (0..head.len())
        .filter(|&at| {
            head[at] != ' ' && (at == 0 || head[at - 1] == ' ' && (at == 1 || head[at - 2] == ' '))
        })
        .collect();
    let cell = |line: &[char], column: usize| -> String {
        let end = starts
            .get(column + 1)
            .copied()
            .unwrap_or(usize::MAX)
            .min(line.len());
        let start = starts[column].min(end);
        line[start..end]
            .iter()
            .collect::<String>()
            .trim()
            .to_owned()
    };
    lines
        .map(|line| {
            let line: Vec<char> = line.chars().collect();
            (0..starts.len())
                .map(|column| (cell(&head, column), cell(&line, column)))
                .collect()
        })
        .collect()
}

/// Some columns of a table, row by row.
pub fn columns(text: &str, names: &[&str]) -> Vec<Vec<String>> {
    read(text)
        .iter()
        .map(|row| {
            names
                .iter()
                .map(|name| {
                    row.get(*name)
                        .cloned()
                        .unwrap_or_else(|| panic!("no column {name}"))
                })
                .collect()
        })
        .collect()
}

/// One column of a table, by its heading.
pub fn column(text: &str, heading: &str) -> Vec<String> {
    let rows = columns(text, &[heading]).into_iter();
    rows.flatten().collect()
}
