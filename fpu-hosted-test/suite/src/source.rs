//! Strips Rust's sources of everything that is not code.

/// The text without comments, and with nothing in its strings.
pub fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| string(rest)).or_else(|| character(rest));
        match skipped {
            Some(length) => {
                // What follows stays apart from what stood before.
                code.push_str(if rest.starts_with('/') { " " } else { "\"\"" });
                rest = &rest[length..];
            }
            None => {
                // A raw string begins with its `r`, and an identifier may end in one.
                let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                let length = word.max(next.len_utf8());
                code.push_str(&rest[..length]);
                rest = &rest[length..];
            }
        }
    }
    code
}

/// Tells whether the character is part of an identifier.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment that begins here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let (step, deeper) = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        (at, depth) = (at + step, depth + deeper);
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// The length of the string that begins here, raw or not, with its prefix.
fn string(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let hashes = text[prefix..].find(|c| c != '#')?;
    let body = text[prefix + hashes..].strip_prefix('"')?;
    let raw = text[..prefix].ends_with('r');
    if prefix > 2 || (hashes > 0 && !raw) {
        return None;
    }
    let before = prefix + hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(body.find(&end).map_or(text.len(), |at| before + at + end.len()));
    }
    let mut escaped = false;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(before + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of the character that begins here; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(inner[2..].find('\'')? + 4);
    }
    inner[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::code_of;

    #[test]
    fn comments_strings_and_characters_are_left_out() {
        for (text, code) in [
            ("a /* b /* c */ d */ e // f\ng", "a   e  \ng"),
            ("f(\"a \\\" crate::b\", c)", "f(\"\", c)"),
            ("r#\"a \" b\"# + br\"\\\" + var\"x\"", "\"\" + \"\" + var\"\""),
            ("'\"' '\\'' '\\u{41}' b'x' &'a str", "\"\" \"\" \"\" b\"\" &'a str"),
            ("\"// no comment\" r#type", "\"\" r#type"),
        ] {
            assert_eq!(code_of(text), code, "{text}");
        }
    }
}
