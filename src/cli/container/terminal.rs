//! The user's own terminal, handed to a command in a container: raw while that runs, its size told on each change.

use std::io::IsTerminal;
use std::mem::MaybeUninit;

/// Raw until dropped.
pub struct Raw(libc::termios);

impl Raw {
    /// `None` where standard input is no terminal.
    pub fn enter() -> Option<Raw> {
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
        let mut raw = before;
        // SAFETY: both get a structure that is filled in.
        let entered = unsafe {
            libc::cfmakeraw(&mut raw);
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &raw)
        };
        (entered == 0).then_some(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the structure is the one that tcgetattr filled in.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &self.0) };
    }
}

/// Width and height; `None` where there is no terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills in `size`, which lives on.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (asked == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}
