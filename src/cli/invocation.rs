//! How the program was called, and how it starts itself again.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::text;

/// How the program was called. Another language's command says so itself: what the system knows of its process is not
/// ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The name it was called by, and its arguments.
    pub arguments: Vec<OsString>,
    /// The words that start this program, before its arguments, for runs in processes of their own; empty for the file
    /// of this process.
    pub program: Vec<OsString>,
}

impl Invocation {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { arguments: std::env::args_os().collect(), program: Vec::new() }
    }
}

static INVOCATION: OnceLock<Invocation> = OnceLock::new();

/// Keeps how the program was called; the first time counts.
pub(super) fn keep(invocation: Invocation) -> &'static Invocation {
    INVOCATION.get_or_init(|| invocation)
}

fn invocation() -> &'static Invocation {
    INVOCATION.get_or_init(Invocation::of_process)
}

/// The arguments after the name, as words of a command.
fn words() -> Vec<String> {
    invocation().arguments.iter().skip(1).map(|word| text::shell_word(Path::new(word))).collect()
}

/// How this program was called, for commands to be copied.
pub(super) fn program() -> String {
    invocation().arguments.first().map_or("structtoken".to_owned(), |program| text::shell_word(Path::new(program)))
}

/// The command as it was typed, for the record.
pub(super) fn command_line() -> String {
    std::iter::once("structtoken".to_owned()).chain(words()).collect::<Vec<_>>().join(" ")
}

/// A hint that ends in an option to add, with the whole command: that which was given, and the option.
pub(super) fn whole(hint: &str) -> String {
    let Some(before) = hint.strip_suffix(": --set data.root=DIR") else { return hint.to_owned() };
    let words = words();
    let option = if words.first().is_some_and(|word| word == "data") { "--root DIR" } else { "--set data.root=DIR" };
    format!("{before}: structtoken {} {option}", words.join(" "))
}

/// This program, to be started again.
pub(super) fn restart() -> Result<Command> {
    if let [program, first @ ..] = invocation().program.as_slice() {
        let mut command = Command::new(program);
        command.args(first);
        return Ok(command);
    }
    let path =
        std::env::current_exe().map_err(|error| Error::new("cannot find this program's file").with_source(error))?;
    Ok(Command::new(path))
}
