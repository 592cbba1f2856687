module github.com/cb02dfca/micro/servers/gomicropeer

go 1.26.0
