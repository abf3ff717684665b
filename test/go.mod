module tourniquet.dev/tourniquet/test

go 1.26.8

require (
	tourniquet.dev/tourniquet v0.0.0
	tourniquet.dev/tourniquet/dev v0.0.0
)

replace (
	tourniquet.dev/tourniquet => ../
	tourniquet.dev/tourniquet/dev => ../dev
)
