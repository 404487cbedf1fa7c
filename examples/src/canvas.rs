//! A picture (SVG) as a text that grows.

use std::fmt::Write;

/// Everything drawn goes through these; a `String` takes every write.
pub struct Canvas(String);

impl Canvas {
    /// An empty white sheet, with definitions for what comes on it.
    #[must_use]
    pub fn new((width, height): (f64, f64), defs: &str) -> Self {
        let mut canvas = Self(String::new());
        canvas.raw(&format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0}" viewBox="0 0 {width} {height:.0}" font-family="'DejaVu Sans', Verdana, 'Segoe UI', sans-serif">"#
        ));
        canvas.raw(defs);
        canvas.rect((0.0, 0.0, width, height), r##"fill="#ffffff""##);
        canvas
    }
    /// The whole document.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.raw("</svg>");
        self.0
    }
    /// A line as it is.
    pub fn raw(&mut self, text: &str) {
        self.0 += text;
        self.0.push('\n');
    }
    /// A rectangle, by its left upper corner and its size; `rest` is its other attributes.
    pub fn rect(&mut self, (x, y, w, h): (f64, f64, f64, f64), rest: &str) {
        let _infallible = writeln!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" {rest}/>"#
        );
    }
    /// A line of text.
    pub fn text(&mut self, (x, y): (f64, f64), size: f64, rest: &str, text: &str) {
        let text = escape(text);
        let _infallible = writeln!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" {rest}>{text}</text>"#
        );
    }
    /// A path.
    pub fn path(&mut self, d: &str, rest: &str) {
        let _infallible = writeln!(self.0, r#"<path d="{d}" {rest}/>"#);
    }
    /// A circle, by its middle and its radius.
    pub fn dot(&mut self, (x, y, r): (f64, f64, f64), rest: &str) {
        let _infallible = writeln!(self.0, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{r}" {rest}/>"#);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
