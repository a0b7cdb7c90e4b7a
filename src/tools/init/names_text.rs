//! Names of classes in text: one per line, with numbers or colours, or a table.

use std::collections::HashSet;

use crate::dataset::spec::Source;
use crate::tools::init::class_name::ClassName;
use crate::tools::init::names_json::hex;
use crate::tools::init::table;

/// One class per line: a name, with a number before it, or three of a colour before or after; a heading says more.
pub(super) fn parse(text: &str) -> Vec<ClassName> {
    let lines = || text.split(['\n', '\r']).map(bare).filter(|line| !line.is_empty());
    if let Some(mark) = lines().next().and_then(mark)
        && let Some(table) = table::parse(lines(), |line| split(line, mark))
    {
        return table;
    }
    let all: Vec<&str> = lines().collect();
    if let Some(names) = one_line(&all).or_else(|| numbered_behind(&all)) {
        return names;
    }
    let mut names: Vec<(ClassName, usize)> = all.into_iter().filter_map(line).collect();
    // `name,r,g,b` over lines of numbers.
    if names.len() > 1 && names[0].1 == 0 && names[1..].iter().all(|(_, numbers)| *numbers > 0) {
        names.remove(0);
    }
    names.into_iter().map(|(named, _)| named).collect()
}

/// A line without a remark: `road  # asphalt`. A colour begins so too.
fn bare(line: &str) -> &str {
    let line = line.trim();
    let remark = line.match_indices('#').find(|(at, _)| {
        let spaced = line[..*at].ends_with([' ', '\t']);
        let color = line[at + 1..].chars().take_while(char::is_ascii_hexdigit).count() == 6;
        (*at == 0 || spaced) && !color
    });
    remark.map_or(line, |(at, _)| line[..at].trim_end())
}

/// All names in one line: `sky,road,car`, or a list as Python prints it.
fn one_line(lines: &[&str]) -> Option<Vec<ClassName>> {
    let [line] = lines else { return None };
    let inner = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(line);
    let mark = [',', ';'].into_iter().find(|mark| outside_quotes(inner, *mark))?;
    let names: Vec<&str> = split(inner, mark).into_iter().map(|name| name.trim_matches(['\'', '"']).trim()).collect();
    let plain = names.len() > 1 && names.iter().all(|name| !name.is_empty() && numbers(name).is_none());
    plain.then(|| names.iter().map(|name| ClassName { name: name.to_string(), value: None, color: None }).collect())
}

/// `sky 0`, `road 1`: each line ends with another number, in a row.
fn numbered_behind(lines: &[&str]) -> Option<Vec<ClassName>> {
    let class = |line: &&str| {
        let (name, number) = line.rsplit_once([' ', '\t'])?;
        let number: u16 = number.parse().ok()?;
        let name = name.trim();
        let plain = name.chars().any(char::is_alphabetic)
            && mark(name).is_none()
            && !name.starts_with(|c: char| c.is_ascii_digit());
        plain.then(|| ClassName { name: name.to_string(), value: Some(Source::Index(number)), color: None })
    };
    let classes: Vec<ClassName> = lines.iter().map(class).collect::<Option<_>>()?;
    let mut values: Vec<Option<Source>> = classes.iter().map(|class| class.value).collect();
    values.sort_unstable();
    let first = match values.first()? {
        Some(Source::Index(first @ 0..=1)) => *first,
        _ => return None,
    };
    let in_a_row = values.iter().zip(first..).all(|(value, n)| *value == Some(Source::Index(n)));
    // `class 0`, `class 1` are names.
    let distinct = || classes.iter().map(|class| &class.name).collect::<HashSet<_>>().len() == classes.len();
    (in_a_row && classes.len() > 1 && distinct()).then_some(classes)
}

/// What stands between the fields of a line.
fn mark(line: &str) -> Option<char> {
    ['\t', ':', ';', ',', '='].into_iter().find(|mark| outside_quotes(line, *mark))
}

/// What a line says, and how many numbers are in it.
fn line(line: &str) -> Option<(ClassName, usize)> {
    let fields: Vec<&str> = match mark(line) {
        Some(mark) => split(line, mark),
        None if line.starts_with('"') => vec![line.trim_matches('"').trim()],
        None => {
            let numbers = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
            let last = line.split_whitespace().take_while(numbers).last();
            let end = last.map_or(0, |last| last.as_ptr() as usize - line.as_ptr() as usize + last.len());
            vec![&line[..end], line[end..].trim()]
        }
    };
    let at = fields.iter().position(|field| numbers(field).is_none())?;
    let before: Vec<u64> = fields[..at].iter().filter_map(|field| numbers(field)).flatten().collect();
    let after: Vec<u64> = fields[at + 1..].iter().map_while(|field| numbers(field)).flatten().collect();
    let rgb = |numbers: &[u64]| -> Option<[u8; 3]> {
        let channels: Vec<u8> = numbers.iter().filter_map(|n| u8::try_from(*n).ok()).collect();
        <[u8; 3]>::try_from(channels).ok()
    };
    let index = |n: u64| u16::try_from(n).ok().map(Source::Index);
    let (value, color) = match (before.as_slice(), after.as_slice()) {
        ([number], color) => (index(*number), rgb(color)),
        ([number, color @ ..], _) if color.len() == 3 => (index(*number), rgb(color)),
        ([], color @ [_, _, _]) | (color @ [_, _, _], _) => (rgb(color).map(Source::Rgb), None),
        // `name=0`, as many write tables of their own; a count of pixels is not a class.
        ([], [number]) if line.contains(['=', ':']) && *number < 256 => (index(*number), None),
        _ => (None, None),
    };
    Some((ClassName { name: fields[at].to_string(), value, color }, before.len() + after.len()))
}

/// Whether the mark stands somewhere that is not between quotes.
fn outside_quotes(line: &str, mark: char) -> bool {
    line.split('"').step_by(2).any(|part| part.contains(mark))
}

/// The fields between marks; what stands between quotes is one, and the quotes are not part of it.
fn split(line: &str, mark: char) -> Vec<&str> {
    let mut quoted = false;
    let ends = move |c: char| {
        quoted ^= c == '"';
        c == mark && !quoted
    };
    line.split(ends).map(|field| field.trim().trim_matches('"').trim()).collect()
}

/// The numbers of a field, which may hold several: `64 128 64`, `(64, 128, 64)`, `#408040`, `64.0`.
fn numbers(field: &str) -> Option<Vec<u64>> {
    if let Some(color) = hex(field) {
        return Some(color.map(u64::from).to_vec());
    }
    let whole = |word: &str| {
        let value: f64 = word.parse().ok()?;
        (value.fract() == 0.0 && (0.0..4e15).contains(&value)).then_some(value as u64)
    };
    let inner = field.trim_start_matches(['(', '[']).trim_end_matches([')', ']']);
    inner.split([' ', ',']).filter(|word| !word.is_empty()).map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, Option<Source>)> {
        parse(text).into_iter().map(|named| (named.name, named.value)).collect()
    }

    #[test]
    fn common_files_are_understood() {
        let rgb = |name: &str, rgb| (name.to_string(), Some(Source::Rgb(rgb)));
        let index = |name: &str, id| (name.to_string(), Some(Source::Index(id)));
        assert_eq!(
            parsed("name,r,g,b\nroad,1,2,3\ntraffic light,4,5,6"),
            [rgb("road", [1, 2, 3]), rgb("traffic light", [4, 5, 6])]
        );
        assert_eq!(parsed("# label:color_rgb:parts:actions\ncar:9,8,7::\n"), [rgb("car", [9, 8, 7])]);
        assert_eq!(parsed("64 128 64\tAnimal\n"), [rgb("Animal", [64, 128, 64])]);
        assert_eq!(parsed("Pixel Value, Class\n0, background\n1, leaf"), [index("background", 0), index("leaf", 1)]);
        assert_eq!(parsed("index\tname\tpixels\n3\thair (dryer, old)\t99999999"), [index("hair (dryer, old)", 3)]);
        assert_eq!(parsed("0 sky\n12: wet road\n"), [index("sky", 0), index("wet road", 12)]);
        assert_eq!(parsed("sky\nclass 3\n"), [("sky".to_string(), None), ("class 3".to_string(), None)]);
        assert_eq!(parsed("sky=0\nroad = 7\n"), [index("sky", 0), index("road", 7)]);
        assert_eq!(
            parsed("\"name\",\"r\",\"g\",\"b\"\n\"sky, clear\",\"1.0\",\"2\",\"3\"\nroad,4,5,6"),
            [rgb("sky, clear", [1, 2, 3]), rgb("road", [4, 5, 6])]
        );
        assert_eq!(parsed("name;colour\nsky;#010203\nroad;(4, 5, 6)"), [rgb("sky", [1, 2, 3]), rgb("road", [4, 5, 6])]);
        assert_eq!(
            parsed("sky\nroad  # wet\n\"car, old\"\n# tree\n"),
            ["sky", "road", "car, old"].map(|n| (n.to_string(), None))
        );
        assert_eq!(parsed("['sky', 'road']"), ["sky", "road"].map(|n| (n.to_string(), None)));
        assert_eq!(parsed("sky,road\n"), ["sky", "road"].map(|n| (n.to_string(), None)));
        assert_eq!(parsed("sky 0\nwet road 1\n"), [index("sky", 0), index("wet road", 1)]);
        assert_eq!(parsed("class 0\nclass 1\n"), ["class 0", "class 1"].map(|n| (n.to_string(), None)));
        // Tables by their headings, in any order of columns.
        for text in [
            "name,r,g,b,a\nsky,1,2,3,255\nroad,4,5,6,255",
            "Class Name;R;G;B;Super\nsky;1;2;3;x\nroad;4;5;6;y",
            "name\tb\tg\tr\nsky\t3\t2\t1\nroad\t6\t5\t4",
            "label,color\nsky,0x010203\nroad,#040506",
            "rgb,class\n\"(1, 2, 3)\",sky\n4 5 6,road",
            "name,r,g,b\nsky,0.0039,0.0078,0.0118\nroad,0.0157,0.0196,0.0235",
        ] {
            assert_eq!(parsed(text), [rgb("sky", [1, 2, 3]), rgb("road", [4, 5, 6])], "{text}");
        }
        let more = parse("name,id,r,g,b,supercategory\nsky,7,1,2,3,x\n");
        assert_eq!((more[0].value, more[0].color), (Some(Source::Index(7)), Some([1, 2, 3])));
        assert_eq!(parsed("name,id,trainId,flag\nsky,7,0,False"), [index("sky", 7)]);
        let both = parse("id,name,r,g,b\n7,road,1,2,3");
        assert_eq!((both[0].value, both[0].color), (Some(Source::Index(7)), Some([1, 2, 3])));
    }
}
