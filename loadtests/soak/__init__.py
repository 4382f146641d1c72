"""Everything at once, for long: all tasks, all sizes, rubbish, clients that hang up; does the service stay well?"""
