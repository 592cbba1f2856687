// Program gomicro5 is go-micro v5.3 in a process of its own, for the tests of what it and this project have of each other:
// gomicropeer.Main says what it does by its arguments.
package main

import v5 "github.com/cb02dfca/micro/servers/gomicro5/v5"

func main() { v5.Main("v5.3.0") }
