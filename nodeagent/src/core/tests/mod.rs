mod config;
mod end;
mod init;
mod life;
mod node;
mod random;
