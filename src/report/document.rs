//! The frame of a page: its head, its sections, its style and script.

use crate::report::markup::escape;

/// The top of a page.
pub(crate) struct Head<'a> {
    pub(crate) title: &'a str,
    pub(crate) lead: &'a str,
    /// HTML that stands beside both.
    pub(crate) hero: String,
}

/// A page of sections, each of an id, a name and its HTML; empty ones are left out. `style` follows the house's own.
pub(crate) fn document(head: &Head, style: &str, sections: &[(&str, &str, String)]) -> String {
    let Head { title, lead, hero } = head;
    let (mut nav, mut body) = (String::new(), String::new());
    for (id, name, content) in sections.iter().filter(|section| !section.2.is_empty()) {
        nav += &format!("<a href=\"#{id}\">{name}</a>");
        body += &format!("<section id=\"{id}\" aria-label=\"{name}\">\n{content}</section>\n");
    }
    let lead = if lead.is_empty() { String::new() } else { format!("<p class=\"lead\">{}</p>", escape(lead)) };
    fill(
        include_str!("page.html"),
        &[
            ("title", &escape(title)),
            ("version", env!("CARGO_PKG_VERSION")),
            ("style", format!("{}\n{style}", include_str!("style.css")).trim_end()),
            ("script", include_str!("script.js").trim_end()),
            ("lead", &lead),
            ("hero", hero),
            ("nav", &nav),
            ("sections", &body),
        ],
    )
}

/// Puts each value at its `{{name}}`. One pass: values are never searched for names.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut pieces = template.split("{{");
    let mut page: String = pieces.next().unwrap_or_default().into();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or((piece, ""));
        page += values.iter().find(|value| value.0 == name).map_or("", |value| value.1);
        page += rest;
    }
    page
}
