mod config;
mod end;
mod hooks;
mod init;
mod life;
mod node;
mod random;
mod storage;
