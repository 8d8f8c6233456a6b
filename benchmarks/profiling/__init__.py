"""Where the time of a package goes: by stage and by operator, beside what the machine reaches."""
