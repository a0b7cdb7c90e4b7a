//! What the command says to do, in the words of Python: `--device cpu` is `device="cpu"` here.

use std::borrow::Cow;

/// What follows an option of the command.
#[derive(Clone, Copy)]
enum Value {
    /// Nothing.
    Flag,
    /// A text.
    Text,
    /// A number.
    Number,
    /// Texts between commas.
    Texts,
    /// A change of a setting, `KEY=VALUE`.
    Change,
}

/// The command's options that are arguments of functions here.
const ARGUMENTS: [(&str, &str, Value); 13] = [
    ("budget", "budget", Value::Text),
    ("data", "data", Value::Text),
    ("decoders", "decoders", Value::Texts),
    ("device", "device", Value::Text),
    ("evaluations", "evaluations", Value::Number),
    ("iterations", "iterations", Value::Number),
    ("out", "out", Value::Text),
    ("probabilities", "probabilities", Value::Flag),
    ("resume", "resume=True", Value::Flag),
    ("seeds", "seeds", Value::Number),
    ("set", "set", Value::Change),
    ("split", "split", Value::Text),
    ("threads", "threads", Value::Number),
];

/// Ends of words that belong to the sentence.
const ENDS: [char; 5] = ['`', ',', ';', ')', ':'];

/// The same with the options of the command as arguments. Whole commands, such as `structtoken data init DIR --out FILE`,
/// stay as they are: they are for a shell.
pub(crate) fn in_python(text: &str) -> Cow<'_, str> {
    if !text.contains("--") {
        return Cow::Borrowed(text);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let (mut found, mut at): (Vec<String>, usize) = (Vec::new(), 0);
    // Within a span of code: that of a command, or that of options.
    let (mut command, mut options) = (None, false);
    while let Some(word) = words.get(at) {
        at += 1;
        let core = word.trim_start_matches(['`', '(', '"']);
        let lead = &word[..word.len() - core.len()];
        let ticked = lead.contains('`');
        if let Some(in_ticks) = command {
            let last = if in_ticks { word.contains('`') } else { word.ends_with([',', ';']) };
            command = if last { None } else { command };
            found.push((*word).to_owned());
            continue;
        }
        let Some((name, kind, rest)) = argument(core) else {
            if ticked && !core.contains('`') && !core.starts_with("--") {
                command = Some(true);
            } else if core == "structtoken" {
                command = Some(false);
            }
            options = options && !core.contains('`');
            found.push((*word).to_owned());
            continue;
        };
        if options && let Some(before) = found.last_mut() {
            before.push(',');
        }
        options = options || ticked;
        let next = words.get(at).filter(|_| rest.is_empty()).map(|next| next.trim_end_matches(ENDS));
        match next.and_then(|next| value(kind, next, options)) {
            Some(value) => {
                let tail = words[at].trim_start_matches(next.unwrap_or_default());
                at += 1;
                options = options && !tail.contains('`');
                found.push(format!("{lead}{name}={value}{tail}"));
            }
            None => {
                let tick = if options { "" } else { "`" };
                options = options && !rest.contains('`');
                found.push(format!("{lead}{tick}{name}{tick}{rest}"));
            }
        }
    }
    Cow::Owned(found.join(" "))
}

/// The argument that an option is here, and what follows the option in the same word.
fn argument(word: &str) -> Option<(&'static str, Value, &str)> {
    let option = word.strip_prefix("--")?;
    let end = option.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-').unwrap_or(option.len());
    let (_, name, kind) = ARGUMENTS.iter().find(|(known, ..)| *known == &option[..end])?;
    Some((name, *kind, &option[end..]))
}

/// The word as the option's value; none where it is one of the sentence. `code`: it stands in ticks.
fn value(kind: Value, word: &str, code: bool) -> Option<String> {
    let word = word.trim_matches('\'');
    let plain = !word.is_empty() && !word.contains('`');
    match kind {
        Value::Flag => None,
        Value::Text => (plain && (code || word.contains(['.', '/']))).then(|| quoted(word)),
        Value::Number => word.parse::<u64>().ok().map(|number| number.to_string()),
        Value::Texts => {
            (plain && code).then(|| format!("[{}]", word.split(',').map(quoted).collect::<Vec<_>>().join(", ")))
        }
        Value::Change => (plain && word.contains('=')).then(|| format!("[{}]", quoted(word))),
    }
}

/// A text as Python writes it.
fn quoted(text: &str) -> String {
    if text.contains('"') { format!("'{text}'") } else { format!("\"{text}\"") }
}
