//! `flok attach`.

use std::process::ExitCode;

use anyhow::Context;
use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::query_parameters::{
    AttachContainerOptions, InspectContainerOptions, ResizeContainerTTYOptions, WaitContainerOptions,
};
use clap::Args;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::exec::{WITHIN, show};
use super::{find, terminal};
use crate::api::client::Client;

/// Show what a task prints from now on, and hand it standard input
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok attach web.1
  flok attach --no-stdin web
  flok attach --detach-keys ctrl-a,d shell.1

Input is handed on where the service has it (--interactive). The task goes on when the command ends; with a terminal of its
own (--tty) the detach keys end the command. The exit code is the task's, where that ends first.")]
pub struct Attach {
    /// Hand no input on
    #[arg(long)]
    no_stdin: bool,
    /// Keys that end the command at a terminal: letters, or ctrl- and one of a-z @ [ \ ] ^ _
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,
    /// Task, container or service
    #[arg(value_name = "TASK")]
    name: String,
}

impl Attach {
    pub async fn run(self, client: &Client) -> anyhow::Result<ExitCode> {
        let container = find(client, &self.name).await?;
        let docker = client.patient(WITHIN);
        let shown = client.docker().inspect_container(&container, None::<InspectContainerOptions>).await;
        let config = shown.map_err(|error| client.explain(error))?.config.unwrap_or_default();
        let tty = config.tty == Some(true);
        let stdin = !self.no_stdin && config.open_stdin == Some(true);
        let options = AttachContainerOptions {
            stdin,
            stdout: true,
            stderr: true,
            stream: true,
            ..AttachContainerOptions::default()
        };
        let attached =
            docker.attach_container(&container, Some(options)).await.map_err(|error| client.explain(error))?;
        let AttachContainerResults { mut output, input } = attached;
        let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
        let keys = if raw.is_some() { self.detach_keys } else { Keys::default() };
        let feeding = async {
            let detached = stdin && feed(tokio::io::stdin(), input, keys).await;
            if !detached {
                // The input's end is not the task's.
                std::future::pending::<()>().await;
            }
        };
        let resizing = async {
            if tty {
                terminal::follow_size(|width, height| resize(&docker, &container, width, height)).await;
            }
            std::future::pending::<()>().await;
        };
        let printing = async {
            while let Some(piece) = output.next().await {
                show(piece.map_err(|error| client.explain(error)).context("the task's output broke off")?)?;
            }
            anyhow::Ok(())
        };
        let detached = tokio::select! {
            printed = printing => printed.map(|()| false)?,
            () = feeding => true,
            () = resizing => unreachable!("it has no end"),
        };
        drop(raw);
        if detached {
            eprintln!("detached from {}, which goes on", self.name);
            return Ok(ExitCode::SUCCESS);
        }
        exit_code(client, &container).await
    }
}

async fn resize(docker: &bollard::Docker, container: &str, width: u16, height: u16) {
    let size = ResizeContainerTTYOptions { w: width.into(), h: height.into() };
    // It may have ended meanwhile.
    let _ = docker.resize_container_tty(container, size).await;
}

async fn exit_code(client: &Client, container: &str) -> anyhow::Result<ExitCode> {
    let ended = client.docker().wait_container(container, None::<WaitContainerOptions>).next().await;
    let code = match ended {
        Some(Ok(ended)) => ended.status_code,
        Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return Err(client.explain(error).into()),
        None => 0,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Hands input on until it ends, or until the keys are pressed: then it is true. What may be the beginning of the keys waits
/// for the next one.
async fn feed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, keys: Keys) -> bool {
    let mut presses = Presses { keys, pressed: 0 };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let (passed, detached) = presses.pass(&buffer[..read]);
        if to.write_all(&passed).await.is_err() || to.flush().await.is_err() {
            break;
        }
        if detached {
            return true;
        }
    }
    let _ = to.shutdown().await;
    false
}

/// Bytes one after another; none: nothing detaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Keys(Vec<u8>);

impl Keys {
    fn parse(text: &str) -> Result<Keys, String> {
        let key = |word: &str| match word.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Ok(*letter),
            [b'c', b't', b'r', b'l', b'-', key] if b"@[\\]^_".contains(key) || key.is_ascii_lowercase() => {
                Ok(key & 0x1f)
            }
            _ => Err(format!("{word:?} is no key: write a letter, or for example ctrl-p")),
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Keys)
    }
}

/// How far the keys have been pressed.
struct Presses {
    keys: Keys,
    pressed: usize,
}

impl Presses {
    /// What is handed on of `bytes`, and whether the keys end it.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut passed = Vec::new();
        for byte in bytes {
            if keys.get(self.pressed) == Some(byte) {
                self.pressed += 1;
                if self.pressed == keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&keys[..self.pressed]);
            self.pressed = 0;
            match keys.first() == Some(byte) {
                true => self.pressed = 1,
                false => passed.push(*byte),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_docker_writes_them() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q"), Ok(Keys(vec![0x10, 0x11])));
        assert_eq!(Keys::parse("ctrl-@,a,ctrl-_"), Ok(Keys(vec![0, b'a', 0x1f])));
        for text in ["", "ctrl-", "ctrl-5", "ctrl-p,", "ab", "ctrl-P"] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_keys_are_swallowed_and_what_only_begins_like_them_is_not() {
        let mut presses = Presses { keys: Keys::parse("ctrl-a,d").unwrap(), pressed: 0 };
        assert_eq!(presses.pass(b"x\x01"), (b"x".to_vec(), false));
        assert_eq!(presses.pass(b"y\x01\x01"), (b"\x01y\x01".to_vec(), false));
        assert_eq!(presses.pass(b"dz"), (Vec::new(), true));
        let mut without = Presses { keys: Keys::default(), pressed: 0 };
        assert_eq!(without.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[tokio::test]
    async fn input_is_handed_on_until_the_keys_or_its_end() {
        let mut handed = Vec::new();
        let keys = Keys::parse("ctrl-p,ctrl-q").unwrap();
        assert!(feed(&b"ls\n\x10\x11more"[..], &mut handed, keys.clone()).await);
        assert_eq!(handed, b"ls\n");
        assert!(!feed(&b"ls\n"[..], &mut Vec::new(), keys).await);
    }
}
