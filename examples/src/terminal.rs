//! Output that fits a narrow terminal.

use std::io::IsTerminal;

/// No narrower: a word of hexadecimal digits needs this much.
const LEAST: usize = 20;

/// Columns of the terminal: what `COLUMNS` says, else what standard output says if it is a terminal, else
/// as many as there are.
#[must_use]
pub fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let columns = said.filter(|columns| *columns > 0).or_else(asked);
    columns.map_or(usize::MAX, |columns| columns.max(LEAST))
}

fn asked() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one `winsize`, which `size` is.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Characters of a line that are seen: escape sequences are not.
fn seen(text: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for c in text.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (false, _) => count += 1,
            // A sequence of `Style` ends in this letter.
            (true, 'm') => escape = false,
            (true, _) => {}
        }
    }
    count
}

/// `text` with every line that is too long broken: at a space if there is one, with the line's own
/// indentation and two columns more in front of what follows.
#[must_use]
pub fn fold(text: &str, columns: usize) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let (body, end) = match line.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (line, ""),
        };
        if seen(body) <= columns {
            out += line;
            continue;
        }
        let own = body.len() - body.trim_start_matches(' ').len();
        let indent = " ".repeat((own + 2).min(columns / 3));
        let (mut used, mut first) = (own.min(columns / 3), true);
        out += &indent[..used];
        for word in body.split(' ').filter(|word| !word.is_empty()) {
            let room = columns - indent.len();
            for part in parts(word, room) {
                let width = seen(&part);
                if !first && used + 1 + width > columns {
                    out.push('\n');
                    out += &indent;
                    used = indent.len();
                } else if !first {
                    out.push(' ');
                    used += 1;
                }
                out += &part;
                used += width;
                first = false;
            }
        }
        out += end;
    }
    out
}

/// A word that is longer than a line, in pieces.
fn parts(word: &str, room: usize) -> Vec<String> {
    if seen(word) <= room {
        return vec![word.to_owned()];
    }
    let mut parts = vec![String::new()];
    for c in word.chars() {
        let last = parts.len() - 1;
        if seen(&parts[last]) >= room {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// Columns of a help text.
const HELP: usize = 79;

/// An entry of a list in a help text: what it is about is broken into lines that stand below one another.
#[must_use]
pub fn entry(name: &str, width: usize, about: &str) -> String {
    let indent = " ".repeat(width + 4);
    let mut line = format!("  {name:<width$}  ");
    let mut out = String::new();
    for (at, word) in about.split(' ').enumerate() {
        if at > 0 && seen(&line) + seen(word) > HELP {
            out += line.trim_end();
            out.push('\n');
            line.clone_from(&indent);
        }
        line += word;
        line.push(' ');
    }
    out + line.trim_end() + "\n"
}

/// Figures of a row whose table is too wide, each behind what it is, in as many lines as they need.
#[must_use]
pub fn figures(figures: &[(&str, String)], columns: usize) -> String {
    let figures: Vec<String> =
        figures.iter().map(|(what, value)| format!("{what}\u{a0}{}", value.trim())).collect();
    format!("{}\n", fold(&format!("  {}", figures.join(", ")), columns).replace('\u{a0}', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_and_every_word_is_kept() {
        let words =
            ["a", "\x1b[1;31mred\x1b[0m", "0123456789abcdef0123456789abcdef", "", "  ", "x,"];
        let mut seed = 1u64;
        for columns in 20..=80 {
            for indent in 0..14 {
                let mut text = " ".repeat(indent);
                for _ in 0..40 {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    text += words[(seed >> 40) as usize % words.len()];
                    text.push(if seed >> 60 == 0 { '\n' } else { ' ' });
                }
                let folded = fold(&text, columns);
                assert!(folded.lines().all(|line| seen(line) <= columns), "{columns}: {folded}");
                let bare = |text: &str| text.replace([' ', '\n'], "");
                assert_eq!(bare(&folded), bare(&text));
                assert_eq!(fold(&text, usize::MAX), text);
            }
        }
    }

    #[test]
    fn an_entry_is_as_wide_as_a_help_text() {
        assert_eq!(entry("name", 6, "what it is"), "  name    what it is\n");
        let long = "0123456789 ".repeat(12);
        let lines = entry("name", 6, long.trim());
        let words = |line: &str| line.matches("0123456789").count();
        assert_eq!(lines.lines().map(words).collect::<Vec<_>>(), [6, 6]);
        let exact = format!("{} {}", "a".repeat(60), "b".repeat(8));
        assert_eq!(entry("name", 6, &exact).trim_end().len(), HELP);
        assert_eq!(entry("name", 6, &format!("{exact}b")).lines().count(), 2);
        assert!(lines.lines().nth(1).is_some_and(|line| line.starts_with("          0")));
    }

    #[test]
    fn a_figure_stays_beside_what_it_is() {
        let row = [("saves", "  20000".to_owned()), ("cycles a switch", "17".to_owned())];
        assert_eq!(figures(&row, 20), "  saves 20000,\n    cycles a\n    switch 17\n");
        assert_eq!(figures(&row, 40), "  saves 20000, cycles a switch 17\n");
    }
}
