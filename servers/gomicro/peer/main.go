// Program peer is go-micro v5.30 in a process of its own, with the arguments of gomicropeer.Main.
package main

import v5 "github.com/cb02dfca/micro/servers/gomicro5/v5"

func main() { v5.Main("v5.30.0") }
