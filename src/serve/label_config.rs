//! Label Studio's labelling interface: which tags of it a prediction belongs to.

/// The tags that brush strokes are drawn by and on, and the task's field that names the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) from_name: String,
    pub(super) to_name: String,
    pub(super) field: String,
    /// The labels that there are; none where the interface lists none.
    pub(super) labels: Vec<String>,
}

impl Interface {
    /// Of the interface's XML; none where it has no tag for brush labels on an image.
    pub(super) fn read(xml: &str) -> Option<Self> {
        let tags = tags(xml);
        let brush = tags.iter().find(|tag| tag.name == "BrushLabels" || tag.name == "Brush")?;
        let (from_name, to_name) = (brush.get("name")?, brush.get("toName")?);
        let image = tags.iter().find(|tag| tag.name == "Image" && tag.get("name") == Some(to_name))?;
        let field = image.get("value")?.strip_prefix('$')?;
        let labels =
            tags.iter().filter(|tag| tag.name == "Label").filter_map(|tag| tag.get("value")).map(str::to_owned);
        Some(Self {
            from_name: from_name.into(),
            to_name: to_name.into(),
            field: field.into(),
            labels: labels.collect(),
        })
    }
}

/// An opening tag.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, String)>,
}

impl Tag<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// The opening tags, in their order. What is not one is passed over.
fn tags(xml: &str) -> Vec<Tag<'_>> {
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end..]);
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if end > 0 {
            let (attributes, after) = attributes(&rest[end..]);
            found.push(Tag { name: &rest[..end], attributes });
            rest = after;
        }
    }
    found
}

/// `name="value"` pairs, and what follows them.
fn attributes(mut rest: &str) -> (Vec<(&str, String)>, &str) {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        let quote = value.and_then(|value| value.chars().next()).filter(|c| ['"', '\''].contains(c));
        let (Some(value), Some(quote), false) = (value, quote, name.is_empty()) else { return (found, after) };
        let Some(end) = value[1..].find(quote) else { return (found, "") };
        found.push((name, unescaped(&value[1..=end])));
        rest = &value[end + 2..];
    }
}

fn unescaped(text: &str) -> String {
    // `&amp;` last: what it gives begins no other.
    let escapes = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    escapes.into_iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_of_brush_labels_are_found() {
        let xml = "<View><!-- <Image name='no'/> --><Image name=\"img\" value = '$photo' zoom=\"true\"/>\n\
                   <BrushLabels name='tag' toName=\"img\"><Label value=\"a &amp; b\" background=\"red\"/><Label value='c'/></BrushLabels></View>";
        let found = Interface::read(xml).unwrap();
        assert_eq!((&*found.from_name, &*found.to_name, &*found.field), ("tag", "img", "photo"));
        assert_eq!(found.labels, ["a & b", "c"]);
        let none = [
            "",
            "<",
            "<View",
            "<Image name=\"a\" value=\"$b\"/>",
            "<BrushLabels name='x' toName='y",
            "<BrushLabels name=x/>",
            "<!--",
        ];
        assert!(none.into_iter().all(|xml| Interface::read(xml).is_none()));
        for end in (0..xml.len()).filter(|end| xml.is_char_boundary(*end)) {
            let _ = Interface::read(&xml[..end]);
        }
    }
}
