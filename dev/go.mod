module tourniquet.dev/tourniquet/dev

go 1.26.8

require tourniquet.dev/tourniquet v0.0.0

replace tourniquet.dev/tourniquet => ../
