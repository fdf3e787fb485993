//! A chat in the terminal: lines in, answers out, until Ctrl-D.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::conversation::Conversation;
use super::interrupt::Interrupt;
use super::once::say;
use super::screen::{self, quiet};
use super::speaker::Speaker;
use crate::cli::arguments::Run;
use crate::cli::failure::Failure;
use crate::cli::figures::plural;
use crate::real::text::{ChatTemplate, Origin};

const PROMPT: &str = "> ";

/// In front of lines that go on with a question.
const MORE: &str = ". ";

const HELP: &str = "\
  /clear           begin a new conversation
  /retry           answer the last question again, in other words
  /system TEXT     tell the model who it is, and begin anew; without TEXT, nothing
  /help            this
  /quit            end; Ctrl-D does too
  A line that ends in \\ goes on in the next one. Up and Down bring earlier lines back. Ctrl-C ends an answer.";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Nothing,
    Question(String),
    Clear,
    Retry,
    System(String),
    Help,
    Quit,
    Unknown(String),
}

/// The chat's state.
struct Chat<'a> {
    speaker: Speaker,
    template: &'a ChatTemplate,
    conversation: Conversation,
}

/// Chats until the end of input.
pub(super) fn chat(
    speaker: Speaker,
    template: &ChatTemplate,
    asked: &Run,
    name: &str,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    welcome(&speaker, template, name);
    let conversation = Conversation::new(asked.system.clone());
    let mut chat = Chat { speaker, template, conversation };
    let mut editor = DefaultEditor::new().map_err(|cause| Failure::Input(std::io::Error::other(cause)))?;
    // After the editor, which takes Ctrl-C for itself while it is made.
    interrupt.listen();
    loop {
        let Some(text) = read(&mut editor)? else { return Ok(()) };
        match Line::of(&text) {
            Line::Quit => return Ok(()),
            line => chat.take(line)?,
        }
    }
}

fn welcome(speaker: &Speaker, template: &ChatTemplate, name: &str) {
    let threads = plural(speaker.threads() as u64, "thread");
    let loaded = planner::units::fmt_ms(speaker.load_s() * 1e3);
    note!("{name}, {threads}, loaded in {loaded}. {}", quiet("/help for help, Ctrl-D to end"));
    if let Origin::Fallback(name) = template.origin() {
        note!("{}", quiet(&format!("the file brings no chat template; {name} is used")));
    }
}

/// A question, over several lines where they end in a backslash; `None` at the end of input.
fn read(editor: &mut DefaultEditor) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    loop {
        let line = match editor.readline(if text.is_empty() { PROMPT } else { MORE }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                note!("{}", quiet("Ctrl-D ends the chat"));
                return Ok(Some(String::new()));
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Io(cause)) => return Err(Failure::Input(cause)),
            Err(other) => return Err(Failure::Input(std::io::Error::other(other))),
        };
        // A history that is full or refuses a line only costs the line.
        let _ = editor.add_history_entry(&line);
        match line.strip_suffix('\\') {
            Some(begun) => text = text + begun + "\n",
            None => return Ok(Some(text + &line)),
        }
    }
}

impl Line {
    fn of(text: &str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match word {
            "" => Line::Nothing,
            "/clear" => Line::Clear,
            "/retry" => Line::Retry,
            "/system" => Line::System(rest.trim().to_owned()),
            "/help" | "/?" => Line::Help,
            "/quit" | "/exit" | "/bye" => Line::Quit,
            // A path or a comment may begin with a slash too; commands are one lowercase word.
            word if is_command(word) => Line::Unknown(word.to_owned()),
            _ => Line::Question(text.to_owned()),
        }
    }
}

fn is_command(word: &str) -> bool {
    word.strip_prefix('/')
        .is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()))
}

impl Chat<'_> {
    fn take(&mut self, line: Line) -> Result<(), Failure> {
        match line {
            Line::Nothing | Line::Quit => {}
            Line::Question(text) => {
                self.conversation.ask(&text);
                self.answer()?;
            }
            Line::Retry if self.conversation.unanswer() => {
                self.speaker.reseed();
                self.answer()?;
            }
            Line::Retry => note!("{}", quiet("there is no answer yet")),
            Line::Clear => {
                self.conversation.clear();
                note!("{}", quiet("a new conversation"));
            }
            Line::System(text) => {
                self.conversation.set_system(&text);
                note!("{}", quiet("a new conversation, under that"));
            }
            Line::Help => note!("{HELP}"),
            Line::Unknown(word) => {
                note!("{}", quiet(&format!("there is no {word}; /help says what there is")))
            }
        }
        Ok(())
    }

    /// Answers the open question. What the template or the context refuses is said, and the question taken back.
    fn answer(&mut self) -> Result<(), Failure> {
        match self.try_answer() {
            Err(refused @ (Failure::Template(_) | Failure::Usage(_))) => {
                self.conversation.unask();
                note!("{refused}");
                Ok(())
            }
            other => other,
        }
    }

    fn try_answer(&mut self) -> Result<(), Failure> {
        let context = self.speaker.context();
        let (prompt, forgotten) =
            self.conversation.prompt(self.template, self.speaker.tokenizer(), context)?;
        if forgotten > 0 {
            let turns = plural(forgotten as u64, "turn");
            note!("{}", quiet(&format!("the context is full: forgot the first {turns}")));
        }
        let answer = self.speaker.answer(&prompt, self.template.stops(), &mut say)?;
        if !answer.text.is_empty() && !answer.text.ends_with('\n') {
            say("\n")?;
        }
        note!("{}\n", screen::figures(&answer));
        self.conversation.answered(&answer.text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_questions() {
        assert_eq!(Line::of("  \n"), Line::Nothing);
        assert_eq!(Line::of("/clear"), Line::Clear);
        assert_eq!(Line::of("/system  You are terse. "), Line::System("You are terse.".into()));
        assert_eq!(Line::of("/cler"), Line::Unknown("/cler".into()));
        assert_eq!(Line::of("/usr/bin is what?"), Line::Question("/usr/bin is what?".into()));
        assert_eq!(Line::of("// a comment"), Line::Question("// a comment".into()));
        assert_eq!(Line::of(" Hi\nthere "), Line::Question("Hi\nthere".into()));
    }
}
