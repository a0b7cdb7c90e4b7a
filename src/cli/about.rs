//! `structtoken completions` and `structtoken man`: the command line itself, for shells and for `man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::console::print;
use crate::cli::{Cli, End};
use crate::error::{Error, Result};

const COMPLETIONS: &str = "Examples:
  structtoken completions bash > ~/.local/share/bash-completion/completions/structtoken
  structtoken completions zsh > ~/.zfunc/_structtoken          with fpath+=~/.zfunc in ~/.zshrc
  structtoken completions fish > ~/.config/fish/completions/structtoken.fish
  structtoken completions powershell >> $PROFILE";

/// Print the completion script for a shell
#[derive(Args)]
#[command(after_help = COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const MAN: &str = "Examples:
  structtoken man | man -l -
  structtoken man --out ~/.local/share/man/man1";

/// Print the manual page, or write the pages of all commands to a folder
#[derive(Args)]
#[command(after_help = MAN)]
pub(crate) struct Man {
    /// Write the pages of all commands to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions) -> Result<End> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "structtoken", &mut text);
    print(String::from_utf8_lossy(&text).trim_end());
    Ok(End::Done)
}

pub(crate) fn man(arguments: &Man) -> Result<End> {
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|error| Error::new("cannot make the manual page").with_source(error))?;
        print(String::from_utf8_lossy(&page).trim_end());
        return Ok(End::Done);
    };
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder)).map_err(
        |error| Error::file("write the manual to", folder, error).with_hint("choose another folder with --out"),
    )?;
    print(&folder.display().to_string());
    Ok(End::Done)
}
