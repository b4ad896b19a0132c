//! Text with code in it, as stories are told in.

/// The parts of a text between its backticks: every second one is code. A backslash before a backtick or another backslash
/// says that it is the text's own.
///
/// ```
/// # use pathsum::study::prose_parts;
/// assert_eq!(prose_parts(r"after `\\` and `\`` comes \n"), ["after ", r"\", " and ", "`", r" comes \n"]);
/// ```
pub fn prose_parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = chars.next_if(|&next| c == '\\' && (next == '`' || next == '\\'));
        match (c, escaped) {
            ('`', _) => parts.push(String::new()),
            (c, escaped) => parts.last_mut().expect("a part").push(escaped.unwrap_or(c)),
        }
    }
    parts
}

/// A word as code within text.
pub(super) fn quoted(word: &str) -> String {
    format!("`{}`", word.replace('\\', "\\\\").replace('`', "\\`"))
}
