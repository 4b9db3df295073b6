//! The user's own terminal: handed to a command in a container, raw while that runs, its size told on each change; or asked
//! for a key that it does not show.

use std::io::IsTerminal;
use std::mem::MaybeUninit;

use tokio::signal::unix::{SignalKind, signal};

/// Standard input's settings as they were, set again when dropped.
struct Changed(libc::termios);

impl Changed {
    /// `None` where standard input is no terminal.
    fn by(change: impl FnOnce(&mut libc::termios)) -> Option<Changed> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let mut before = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: tcgetattr fills in the whole structure where it succeeds.
        let before = unsafe {
            if libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) != 0 {
                return None;
            }
            before.assume_init()
        };
        let mut changed = before;
        change(&mut changed);
        // SAFETY: the structure is filled in.
        let entered = unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &changed) };
        (entered == 0).then_some(Changed(before))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // SAFETY: the structure is the one that tcgetattr filled in.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &self.0) };
    }
}

/// Raw until dropped.
pub struct Raw(#[expect(dead_code, reason = "held for its drop")] Changed);

impl Raw {
    /// `None` where standard input is no terminal.
    pub fn enter() -> Option<Raw> {
        // SAFETY: the structure is filled in.
        Changed::by(|settings| unsafe { libc::cfmakeraw(settings) }).map(Raw)
    }
}

/// Does not show what is typed until dropped.
pub struct Hidden(#[expect(dead_code, reason = "held for its drop")] Changed);

impl Hidden {
    /// `None` where standard input is no terminal.
    pub fn enter() -> Option<Hidden> {
        Changed::by(|settings| settings.c_lflag &= !libc::ECHO).map(Hidden)
    }
}

/// Width and height; `None` where there is no terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills in `size`, which lives on.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (asked == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}

/// Tells width and height now and after each change, without end.
pub async fn follow_size<F: Future<Output = ()>>(tell: impl Fn(u16, u16) -> F) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some((width, height)) = size() {
            tell(width, height).await;
        }
        changes.recv().await;
    }
}
